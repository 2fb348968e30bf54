"""TF Serving: a version checked, the server launched, manifests for many machines, the client."""

from keras_shared.serving.batching_parameters import BatchingError as BatchingError
from keras_shared.serving.client import Client as Client
from keras_shared.serving.engine import EngineError as EngineError
from keras_shared.serving.engine import serve as serve
from keras_shared.serving.errors import ServingError as ServingError
from keras_shared.serving.finding import Finding as Finding
from keras_shared.serving.findings import check as check
from keras_shared.serving.findings import check_version as check_version
from keras_shared.serving.manifests import ManifestError as ManifestError
from keras_shared.serving.manifests import write_manifests as write_manifests
from keras_shared.serving.messages import SignatureDef as SignatureDef
from keras_shared.serving.messages import Status as Status
from keras_shared.serving.messages import TensorInfo as TensorInfo
from keras_shared.serving.training_job import write_training_job as write_training_job
