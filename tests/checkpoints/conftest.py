from tests.models.conftest import model_config, segmentor

__all__ = ["model_config", "segmentor"]
