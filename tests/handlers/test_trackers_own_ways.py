"""What each tracker has of its own: pictures, options, savers."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from cookfire.engine import Engine, Events
from cookfire.handlers import Checkpoint
from cookfire.handlers import clearml_logger as clearml_module
from cookfire.handlers.clearml_logger import ClearMLLogger, ClearMLSaver
from cookfire.handlers.neptune_logger import NeptuneSaver
from cookfire.handlers.polyaxon_logger import PolyaxonLogger
from cookfire.handlers.wandb_logger import WandBLogger
from tests.handlers.helpers import engine_at
from tests.handlers.saying import saying
from tests.handlers.trackers import make, points


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
