"""The datasets: one stage each in ``data/dvc.yaml``; tiny ones are made here, real ones fetched."""
