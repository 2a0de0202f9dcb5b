"""The trackers of runs, against stand-ins that record what is called."""

import importlib
import inspect
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers import Checkpoint, _delivery, common
from cookfire.handlers import clearml_logger as clearml_module
from cookfire.handlers.clearml_logger import ClearMLLogger, ClearMLSaver
from cookfire.handlers.neptune_logger import NeptuneLogger, NeptuneSaver
from cookfire.handlers.polyaxon_logger import PolyaxonLogger
from cookfire.handlers.visdom_logger import VisdomLogger
from cookfire.handlers.wandb_logger import WandBLogger
from tests.handlers.helpers import engine_at
from tests.handlers.saying import saying
from tests.handlers.tracker_doubles import Tracker

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ignite.handlers.clearml_logger
    import ignite.handlers.mlflow_logger
    import ignite.handlers.neptune_logger
    import ignite.handlers.polyaxon_logger
    import ignite.handlers.tensorboard_logger
    import ignite.handlers.visdom_logger
    import ignite.handlers.wandb_logger

LOGGERS = {
    "wandb": (WandBLogger, {"project": "p"}),
    "clearml": (ClearMLLogger, {"project_name": "p"}),
    "neptune": (NeptuneLogger, {"project": "p"}),
    "polyaxon.tracking": (PolyaxonLogger, {"project": "p"}),
    "visdom": (VisdomLogger, {"env": "first"}),
}


@pytest.fixture
def wandb(monkeypatch):
    return put("wandb", monkeypatch)


@pytest.fixture
def clearml(monkeypatch):
    return put("clearml", monkeypatch)


@pytest.fixture
def neptune(monkeypatch):
    return put("neptune", monkeypatch)


@pytest.fixture
def polyaxon(monkeypatch):
    return put("polyaxon.tracking", monkeypatch)


@pytest.fixture
def visdom(monkeypatch):
    return put("visdom", monkeypatch)


@pytest.fixture(params=LOGGERS)
def tracker(request, monkeypatch):
    return put(request.param, monkeypatch)


def put(package, monkeypatch):
    """Put a double in the place of a tracker's package."""
    tracker = Tracker(package)
    monkeypatch.setitem(sys.modules, package, tracker.module)
    top = package.split(".")[0]
    if top != package:
        monkeypatch.setitem(sys.modules, top, tracker.module)
    match package:
        case "wandb":
            tracker.module.run = None
            tracker.answers["init"] = lambda **options: tracker.object(
                "Run", id=options.get("id", "made"), config=tracker.object("Run.config")
            )
            tracker.interface = tracker.interface | {
                "Run.config.update": "d, allow_val_change=None"
            }
        case "clearml":
            tracker.answers |= {
                "Task.is_offline": True,
                "Task.init": lambda reuse_last_task_id="made", **_: tracker.object(
                    "Task", id=reuse_last_task_id, name="task"
                ),
                "Task.get_logger": tracker.object("Logger"),
            }
            tracker.answers["Task.current_task"] = lambda: None
        case "neptune":
            tracker.answers["init_run"] = lambda with_id="made", **_: tracker.object("Run")
            tracker.answers["handler.Handler.fetch"] = "made"
        case "polyaxon.tracking":
            tracker.answers["Run"] = lambda run_uuid="made", **_: tracker.object(
                "Run", run_uuid=run_uuid
            )
        case "visdom":
            tracker.answers["Visdom.check_connection"] = True
            tracker.answers["Visdom"] = lambda env, server, port, **_: tracker.object(
                "Visdom", env=env, server=server, port=port, offline=False
            )
    return tracker


def make(tracker, **more):
    logger, options = LOGGERS[tracker.module.__name__]
    return logger(**options | more)


def points(tracker):
    """Return the (name, value, step) that a tracker got."""
    found = []
    for path, arguments in tracker.calls:
        match path:
            case "Run.log":
                data = dict(arguments["data"])
                step = data.pop("global_step")
                found += [(name, value, step) for name, value in data.items()]
            case "Logger.report_scalar":
                title, series, value, step = arguments.values()
                found.append((f"{title}/{series}", value, step))
            case "handler.Handler.append":
                found.append((arguments["key"], arguments["value"], arguments["step"]))
            case "Run.log_metric":
                found.append((arguments["name"], arguments["value"], arguments["step"]))
            case "Visdom.line":
                assert arguments["update"] == "append"
                found.append((arguments["win"], arguments["Y"][0], arguments["X"][0]))
    return found


class TestAllOfThem:
    def test_handlers_of_all_kinds_log_names_values_and_steps(self, tracker):
        module = importlib.import_module(LOGGERS[tracker.module.__name__][0].__module__)
        net = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1, bias=False))
        nn.init.constant_(net[1].weight, 3.0)
        net[1].weight.grad = torch.full((1, 1), -4.0)
        sgd = torch.optim.SGD(net.parameters(), lr=0.5)
        trainer = Engine(lambda engine, batch: torch.tensor(float(batch)))
        with make(tracker) as logger:
            logger.attach_output_handler(
                trainer,
                Events.ITERATION_COMPLETED(every=2),
                tag="training",
                output_transform=lambda loss: {"loss": loss, "both": [1, 2.5]},
            )
            logger.attach_opt_params_handler(trainer, Events.EPOCH_STARTED, sgd)
            for handler in (
                module.WeightsScalarHandler(net, whitelist=["1"]),
                module.GradsScalarHandler(net, tag="gan"),
            ):
                logger.attach(trainer, handler, Events.EPOCH_COMPLETED)
            trainer.run([5, 7], max_epochs=1)
        assert points(tracker) == [
            ("lr/group_0", 0.5, 1),
            ("training/loss", 7.0, 2),
            ("training/both/0", 1, 2),
            ("training/both/1", 2.5, 2),
            ("weights_norm/1/weight", 3.0, 1),
            ("gan/grads_norm/1/weight", 4.0, 1),
        ]

    def test_parameters_wait_for_the_run_and_nothing_is_begun_without_need(self, tracker):
        logger = make(tracker)
        logger.log_params({"lr": 0.1, "model": {"name": "resnet"}})
        assert not hasattr(logger, "module")
        assert tracker.calls == []
        logger.log_metrics({"loss": 0.5}, 1)
        values = str(tracker.calls)
        assert "0.1" in values
        assert "resnet" in values
        assert values.index("resnet") < values.index("loss")

    def test_parameters_alone_make_a_run_too(self, tracker):
        with make(tracker) as logger:
            logger.log_params({"lr": 0.125})
        assert "0.125" in str(tracker.calls)

    def test_nothing_logged_makes_none(self, tracker):
        make(tracker).close()
        assert tracker.calls == []

    def test_a_checkpoint_continues_its_run(self, tracker):
        first = make(tracker)
        first.log_metrics({"loss": 0.5}, 1)
        state = first.state_dict()
        first.close()
        assert state == {"run_id": first.run_id}
        tracker.calls.clear()
        again = make(tracker)
        again.log_params({"lr": 0.1})
        again.load_state_dict({"run_id": "theirs"})
        again.log_metrics({"train/loss": 0.25}, 2)
        assert "'theirs'" in str(tracker.calls[:3])
        assert points(tracker) == [("train/loss", 0.25, 2)]

    def test_a_run_that_was_begun_too_early_is_ended(self, tracker):
        logger = make(tracker)
        logger.log_metrics({"loss": 0.5}, 1)
        ends = ("Run.finish", "Task.close", "Run.stop", "Run.end", "Visdom.save")
        assert not any(tracker.of(end) for end in ends)
        logger.load_state_dict({"run_id": "theirs"})
        assert any(tracker.of(end) for end in ends)

    def test_a_tracker_out_of_reach_is_said_once_and_catches_up(self, tracker, monkeypatch):
        monkeypatch.setattr(_delivery, "SECONDS", 0.0)
        monkeypatch.setattr(_delivery, "SHARE", 0.0)
        engine = Engine(lambda engine, batch: float(batch))
        logger = make(tracker)
        logger.log_params({"lr": 0.1})
        logger.attach_output_handler(
            engine, Events.ITERATION_COMPLETED, "train", output_transform=lambda x: {"loss": x}
        )
        tracker.error = RuntimeError("no answer")

        @engine.on(Events.ITERATION_COMPLETED(once=3))
        def answer_again():
            assert not logger.run
            logger.run.anything.at_all("does nothing")["here"] = "either"
            tracker.error = None

        with saying() as said:
            engine.run([1, 2, 3, 4])
        (text,) = said
        assert "no run could be started (no answer). The training goes on" in text
        assert points(tracker) == [("train/loss", float(i), i) for i in (1, 2, 3, 4)]
        assert "0.1" in str(tracker.calls)

    def test_a_tracker_that_dies_midway_is_said_once(self, tracker):
        logger = make(tracker)
        logger.log_metrics({"loss": 0.0}, 0)
        tracker.error = ConnectionError("gone")
        with saying() as said:
            for step in range(5):
                logger.log_metrics({"loss": 1.0}, step)
            logger.close()
        assert "gone" in said[0]
        assert "5 records are lost" in said[1]
        assert len(said) == 2

    def test_a_missing_package_is_named_with_what_to_install(self, tracker, monkeypatch):
        package = tracker.module.__name__.split(".")[0]
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModuleNotFoundError, match=f"pip install .*{package}"):
            make(tracker)

    def test_arguments_that_the_tracker_does_not_take_are_refused_at_once(self, tracker):
        if tracker.module.__name__ == "neptune":  # init_run takes any
            tracker.interface = tracker.interface | {"init_run": "api_token, project"}
        with pytest.raises(TypeError, match="projekt"):
            make(tracker, projekt="p")

    def test_an_exception_marks_the_run(self, tracker):
        logger = make(tracker)
        logger.log_metrics({"loss": 0.5}, 1)
        with pytest.raises(ZeroDivisionError), logger:
            _ = 1 / 0
        marks = {
            "wandb": ("Run.finish", {"exit_code": 1}),
            "clearml": ("Task.mark_failed", {"status_reason": "ZeroDivisionError"}),
            "neptune": ("set sys/failed", {"value": True}),
            "polyaxon.tracking": ("Run.log_failed", {"reason": "ZeroDivisionError"}),
            "visdom": ("Visdom.save", {"envs": ["first"]}),
        }
        assert marks[tracker.module.__name__] in tracker.calls


class TestPictures:
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 2.0]], [[0.0, 1.0]]])
    array = np.array([[[0, 128, 0], [255, 255, 255]]], dtype=np.uint8)

    def log(self, tracker, path):
        path.write_text("text")
        with make(tracker) as logger, saying() as said:
            logger.log_image(self.image, "val/image", 3)
            logger.log_image(self.image[0], "grey", 3)
            logger.log_histogram(torch.tensor([0.0, 0.0, 1.0]), "a/weights", 4)
            logger.log_figure("figure", "val/figure", 5)
            logger.log_artifact(path, "notes")
            logger.log_artifact(path.parent)
        return said

    def test_wandb(self, wandb, tmp_path):
        wandb.answers |= {"Image": lambda data_or_path: data_or_path}
        wandb.answers |= {"Histogram": lambda np_histogram: np_histogram}
        assert self.log(wandb, tmp_path / "a b.txt") == []
        image, grey, histogram, figure = (call["data"] for call in wandb.of("Run.log"))
        assert image["global_step"] == 3
        assert np.array_equal(image["val/image"], self.array)
        assert grey["grey"].tolist() == [[0, 255]]
        counts, edges = histogram["a/weights"]
        assert (counts.sum(), len(edges), histogram["global_step"]) == (3, 65, 4)
        assert figure == {"val/figure": "figure", "global_step": 5}
        assert wandb.of("Artifact")[0]["name"] == "a_b.txt"
        (file,), (folder,) = wandb.of("Artifact.add_file"), wandb.of("Artifact.add_dir")
        assert (file["name"], folder["local_path"]) == ("notes/a b.txt", str(tmp_path))
        assert len(wandb.of("Run.log_artifact")) == 2

    def test_clearml(self, clearml, tmp_path):
        assert self.log(clearml, tmp_path / "a.txt") == []
        image, grey = clearml.of("Logger.report_image")
        assert (image["title"], image["series"], image["iteration"]) == ("val", "image", 3)
        assert np.array_equal(image["image"], self.array)
        assert (grey["title"], grey["series"]) == ("grey", "grey")
        (histogram,) = clearml.of("Logger.report_histogram")
        assert (sum(histogram["values"]), histogram["iteration"]) == (3, 4)
        assert len(histogram["xlabels"]) == 64
        (figure,) = clearml.of("Logger.report_matplotlib_figure")
        assert (figure["figure"], figure["iteration"]) == ("figure", 5)
        names = [call["name"] for call in clearml.of("Task.upload_artifact")]
        assert names == ["notes/a.txt", tmp_path.name]

    def test_neptune(self, neptune, tmp_path):
        neptune.answers["types.File.as_image"] = lambda image: image
        assert self.log(neptune, tmp_path / "a.txt") == [
            "NeptuneLogger has no place for a histogram; left out"
        ]
        image, _, figure = neptune.of("handler.Handler.append")
        assert (image["key"], image["step"]) == ("val/image", 3)
        assert np.array_equal(image["value"] * 255, self.array)
        assert (figure["value"], figure["step"]) == ("figure", 5)
        (file,) = neptune.of("handler.Handler.upload")
        assert file["key"] == "notes/a.txt"
        (folder,) = neptune.of("handler.Handler.upload_files")
        assert folder["value"] == f"{tmp_path}/**/*"

    def test_polyaxon(self, polyaxon, tmp_path):
        assert self.log(polyaxon, tmp_path / "a.txt") == []
        image, grey = polyaxon.of("Run.log_image")
        assert np.array_equal(image["data"], self.array)
        assert (image["dataformats"], grey["dataformats"]) == ("HWC", "HW")
        (histogram,) = polyaxon.of("Run.log_np_histogram")
        assert (len(histogram["values"]), len(histogram["counts"])) == (64, 65)
        assert polyaxon.of("Run.log_mpl_image")[0]["step"] == 5
        file, folder = polyaxon.of("Run.log_artifact")
        assert (file["rel_path"], folder["rel_path"]) == ("notes", None)

    def test_visdom(self, visdom, tmp_path):
        assert self.log(visdom, tmp_path / "a.txt") == [
            "VisdomLogger has no place for a file; left out"
        ]
        image, grey = visdom.of("Visdom.image")
        assert np.array_equal(image["img"], self.array.transpose(2, 0, 1))
        assert grey["img"].shape == (1, 1, 2)
        (histogram,) = visdom.of("Visdom.histogram")
        assert (histogram["X"].tolist(), histogram["win"]) == ([0.0, 0.0, 1.0], "a/weights")
        assert visdom.of("Visdom.matplot")[0]["opts"]["title"] == "val/figure, step 5"


class TestTheirOwn:
    def test_wandb_plots_over_the_step_of_each_record(self, wandb):
        make(wandb).log_metrics({"loss": 0.5}, 1)
        assert wandb.of("Run.define_metric") == [{"name": "*", "step_metric": "global_step"}]

    def test_an_active_run_of_wandb_is_used_and_left_open(self, wandb):
        wandb.module.run = wandb.object("Run", id="theirs")
        with WandBLogger(init=False) as logger:
            logger.log_metrics({"loss": 0.5}, 1)
        assert logger.run_id == "theirs"
        assert wandb.of("init") == []
        assert wandb.of("Run.finish") == []
        wandb.module.run = None
        with pytest.warns(UserWarning, match="init=False, and no run of W&B is active"):
            WandBLogger(init=False).log_metrics({"loss": 0.5}, 1)

    def test_a_retired_argument_of_wandbs_handlers_is_said(self, wandb):
        logger, optimizer = make(wandb), torch.optim.SGD([torch.zeros(1)], lr=0.5)
        for attach, arguments in [
            (logger.attach_output_handler, {"tag": "a", "metric_names": "all"}),
            (logger.attach_opt_params_handler, {"optimizer": optimizer}),
        ]:
            with pytest.warns(UserWarning, match="sync has no effect"):
                attach(Engine(lambda *_: None), Events.COMPLETED, **arguments, sync=True)

    def test_a_trackers_own_functions_are_at_hand(self, wandb, clearml, polyaxon):
        net = nn.Linear(1, 1)
        WandBLogger().watch(net, log_freq=5)
        assert wandb.of("Run.watch") == [{"models": net, "log_freq": 5}]
        logger = ClearMLLogger()
        logger.report_text("note")
        assert clearml.of("Logger.report_text") == [{"msg": "note"}]
        PolyaxonLogger().log_outputs(accuracy=0.5)
        assert polyaxon.of("Run.log_outputs") == [{"outputs": {"accuracy": 0.5}}]
        with pytest.raises(TypeError, match="no_such"):
            logger.report_text("note", no_such="argument")
        with pytest.raises(AttributeError, match="no attribute 'report_everything'"):
            _ = logger.report_everything

    def test_fields_of_neptune_are_at_hand(self, neptune):
        logger = make(neptune)
        logger["notes"] = "text"
        logger["series"].append(1.0, step=2)
        assert neptune.of("set notes") == [{"value": "text"}]
        assert neptune.of("handler.Handler.append")[0]["step"] == 2

    def test_an_offline_run_of_neptune_has_no_id(self, neptune):
        assert make(neptune, mode="offline").state_dict() == {"run_id": None}

    def test_neptunes_own_word_for_an_outage_is_understood(self, neptune, monkeypatch):
        class NeptuneConnectionLostException(Exception):
            pass

        logger = make(neptune)
        logger.log_metrics({"loss": 0.0}, 0)
        neptune.error = NeptuneConnectionLostException("lost")
        with pytest.warns(UserWarning, match="kept and written when it works again"):
            logger.log_metrics({"loss": 1.0}, 1)
        neptune.error = None
        logger.close()
        assert points(neptune)[-1] == ("loss", 1.0, 1)

    def test_a_current_task_of_clearml_is_used_and_left_open(self, clearml):
        task = clearml.object("Task", id="theirs", name="task")
        clearml.answers["Task.current_task"] = task
        with ClearMLLogger(project_name="ignored") as logger:
            logger.log_metrics({"loss": 0.5}, 1)
            assert logger.get_task() is task
        assert clearml.of("Task.init") == []
        assert clearml.of("Task.close") == []

    def test_clearml_leaves_torch_save_alone_unless_told(self, clearml):
        make(clearml).log_metrics({"loss": 0.5}, 1)
        make(clearml, auto_connect_frameworks=True).log_metrics({"loss": 0.5}, 1)
        frameworks = [call["auto_connect_frameworks"] for call in clearml.of("Task.init")]
        assert frameworks == [{"pytorch": False}, True]

    def test_a_server_of_clearml_out_of_reach_is_not_waited_for(self, clearml, monkeypatch):
        session = type("Session", (), {"get_api_server_host": lambda: "http://127.0.0.1:9"})
        backend = type(sys)("clearml.backend_api")
        backend.Session = session
        monkeypatch.setitem(sys.modules, "clearml.backend_api", backend)
        monkeypatch.setattr(clearml_module, "getproxies", dict)
        clearml.answers["Task.is_offline"] = False
        with pytest.warns(UserWarning, match="no run could be started .*refused"):
            make(clearml).log_metrics({"loss": 0.5}, 1)
        assert clearml.of("Task.init") == []

    def test_bypass_mode_is_clearmls_offline_mode(self, clearml):
        ClearMLLogger.set_bypass_mode(True)
        assert clearml.of("Task.set_offline") == [{"offline_mode": True}]
        assert ClearMLLogger.bypass_mode() is True

    def test_a_server_of_visdom_out_of_reach_is_an_outage(self, visdom):
        visdom.answers["Visdom.check_connection"] = False
        with pytest.warns(UserWarning, match="no Visdom server at localhost:8097"):
            make(visdom).log_metrics({"loss": 0.5}, 1)

    def test_visdom_is_found_by_the_environments_variables(self, visdom, monkeypatch):
        for name, value in {"SERVER_URL": "http://there", "PORT": "99", "USERNAME": "me"}.items():
            monkeypatch.setenv(f"VISDOM_{name}", value)
        assert make(visdom).vis.env == "first"
        (call,) = visdom.of("Visdom")
        assert (call["server"], call["port"]) == ("http://there", 99)
        assert (call["username"], call["password"]) == ("me", None)

    def test_windows_of_visdom_have_a_legend_where_it_is_wanted(self, visdom):
        from cookfire.handlers import visdom_logger as module

        engine, net = engine_at(3, 1, acc=0.5), nn.Linear(1, 1)
        net(torch.ones(1)).sum().backward()
        logger, sgd = make(visdom), torch.optim.SGD(net.parameters(), lr=0.5)
        for handler in [
            module.OutputHandler("val", "all", show_legend=True),
            module.OptimizerParamsHandler(sgd, show_legend=True),
            module.WeightsScalarHandler(net, show_legend=True, whitelist=["bias"]),
            module.GradsScalarHandler(net, show_legend=False, whitelist=["bias"]),
        ]:
            handler(engine, logger, Events.ITERATION_COMPLETED)
        legends = {call["win"]: call["opts"]["showlegend"] for call in visdom.of("Visdom.line")}
        assert legends == {
            "val/acc": True,
            "lr/group_0": True,
            "weights_norm/bias": True,
            "grads_norm/bias": False,
        }


class TestSavers:
    def test_checkpoints_become_models_whose_number_is_bounded(self, clearml, tmp_path):
        clearml.answers["Task.is_offline"] = False
        clearml.answers["Task.current_task"] = clearml.object("Task", id="a", name="task")
        saver = ClearMLSaver(make(clearml), "s3://there", str(tmp_path))
        checkpoint = Checkpoint({"model": nn.Linear(1, 1)}, saver, n_saved=2)
        for step in range(1, 5):
            checkpoint(engine_at(step))
        assert len(clearml.of("OutputModel")) == 3
        assert clearml.of("OutputModel.set_upload_destination") == [{"uri": "s3://there"}] * 3
        names = [call["target_filename"] for call in clearml.of("OutputModel.update_weights")]
        assert names == [f"model_{step}.pt" for step in range(1, 5)]
        assert saver.get_local_copy("model_4.pt") == str(tmp_path / "model_4.pt")
        assert saver.get_local_copy("model_1.pt") is None
        clearml.answers["OutputModel.get_weights"] = "fetched"
        (tmp_path / "model_4.pt").unlink()
        assert saver.get_local_copy("model_4.pt") == "fetched"

    def test_an_upload_that_fails_leaves_the_file_and_the_training(self, clearml, tmp_path):
        saver = ClearMLSaver(dirname=str(tmp_path))
        with saying() as said:
            for step in (1, 2):
                saver({"weight": torch.zeros(1)}, f"{step}.pt")
        (text,) = said
        assert "ClearMLSaver could not write a checkpoint" in text
        assert {path.name for path in tmp_path.glob("*.pt")} == {"1.pt", "2.pt"}

    def test_a_folder_is_made_where_none_is_given(self, clearml):
        saver = ClearMLSaver(make(clearml))
        saver({"weight": torch.zeros(1)}, "a.pt")
        assert (saver.dirname / "a.pt").exists()
        saver.remove("a.pt")

    def test_neptune_gets_and_loses_checkpoints(self, neptune, tmp_path):
        contents = []
        neptune.answers["handler.Handler.upload"] = lambda key, value, wait: contents.append(
            set(torch.load(value, weights_only=True))
        )
        checkpoint = Checkpoint({"model": nn.Linear(1, 1)}, NeptuneSaver(make(neptune)))
        for step in (1, 2):
            checkpoint(engine_at(step))
        assert contents == [{"weight", "bias"}] * 2
        assert neptune.of("Run.pop") == [{"path": "checkpoints/model_1.pt"}]

    def test_savers_want_their_own_loggers(self, neptune, clearml):
        with pytest.raises(TypeError, match="must be a NeptuneLogger, got int"):
            NeptuneSaver(3)
        with pytest.raises(TypeError, match="must be a ClearMLLogger, got int"):
            ClearMLSaver(3)


SETUPS = {
    "setup_wandb_logging": ("wandb", {"project": "p"}),
    "setup_clearml_logging": ("clearml", {"project_name": "p"}),
    "setup_neptune_logging": ("neptune", {"project": "p"}),
    "setup_plx_logging": ("polyaxon.tracking", {"project": "p"}),
    "setup_visdom_logging": ("visdom", {"env": "first"}),
}


@pytest.mark.parametrize("name", SETUPS)
def test_one_call_logs_metrics_and_learning_rates(name, monkeypatch):
    package, options = SETUPS[name]
    tracker = put(package, monkeypatch)
    trainer, evaluator = engine_at(loss=1.5, time=3), engine_at(acc=0.5)
    sgd = torch.optim.SGD([torch.zeros(1)], lr=0.25)
    logger = getattr(common, name)(
        trainer, sgd, {"test": evaluator}, 2, trainer_metric_names=["loss"], **options
    )
    trainer.add_event_handler(
        Events.ITERATION_STARTED, lambda: trainer.state.metrics.update(loss=1.5, time=3)
    )
    evaluator.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: evaluator.state.metrics.update(acc=0.5)
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run([0, 0])
    logger.close()
    assert points(tracker) == [
        ("lr/group_0", 0.25, 2),
        ("training/loss", 1.5, 2),
        ("test/acc", 0.5, 1),
    ]


def test_trains_is_clearml_now(clearml):
    with pytest.warns(DeprecationWarning, match="use setup_clearml_logging"):
        logger = common.setup_trains_logging(engine_at(), project_name="p")
    assert isinstance(logger, ClearMLLogger)


MODULES = ["tensorboard", "mlflow", "wandb", "clearml", "neptune", "polyaxon", "visdom"]


@pytest.mark.parametrize("name", MODULES)
def test_names_and_signatures_are_those_of_ignite(name):
    theirs = getattr(ignite.handlers, f"{name}_logger")
    ours = importlib.import_module(f"cookfire.handlers.{name}_logger")
    assert set(theirs.__all__) <= set(ours.__all__)
    for function in set(theirs.__all__) - {"NeptuneSaver"}:
        wanted = inspect.signature(getattr(theirs, function)).parameters.values()
        got = list(inspect.signature(getattr(ours, function)).parameters.values())
        if (function, name) == ("MLflowLogger", "mlflow") or "Scalar" in function:
            got = got[: len(wanted)]  # ours has more: names of the run; Visdom's a whitelist
        assert [(one.name, one.kind, one.default) for one in got] == [
            (one.name, one.kind, one.default) for one in wanted
        ]
