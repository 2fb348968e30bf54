"""Models that shared layers combine into. A new one is a file here and a line in `MODELS`."""

from keras_shared import start as start
from keras_shared.zoo.image_classifier import ImageClassifier as ImageClassifier
from keras_shared.zoo.image_rnn import ImageRNN as ImageRNN
from keras_shared.zoo.language_model import LanguageModel as LanguageModel
from keras_shared.zoo.lecun_1989 import LeCun1989 as LeCun1989
from keras_shared.zoo.lenet5 import LeNet5 as LeNet5
from keras_shared.zoo.mlp import MLP as MLP
from keras_shared.zoo.multi_task_net import MultiTaskNet as MultiTaskNet
from keras_shared.zoo.rbf_net import RBFNet as RBFNet
from keras_shared.zoo.shared_transformer import SharedTransformer as SharedTransformer
from keras_shared.zoo.shared_transformer_classifier import (
    SharedTransformerClassifier as SharedTransformerClassifier,
)
from keras_shared.zoo.siamese_net import SiameseNet as SiameseNet
from keras_shared.zoo.tied_autoencoder import TiedAutoencoder as TiedAutoencoder
from keras_shared.zoo.tied_language_model import TiedLanguageModel as TiedLanguageModel
from keras_shared.zoo.time_delay_net import TimeDelayNet as TimeDelayNet
from keras_shared.zoo.topology_search import search_topology as search_topology
from keras_shared.zoo.weight_agnostic_net import WeightAgnosticNet as WeightAgnosticNet
from keras_shared.zoo.zoo_model import ZooModel as ZooModel

MODELS: dict[str, type[ZooModel]] = {
    "ImageRNN": ImageRNN,
    "LeCun1989": LeCun1989,
    "LeNet5": LeNet5,
    "MLP": MLP,
    "MultiTaskNet": MultiTaskNet,
    "RBFNet": RBFNet,
    "SharedTransformer": SharedTransformer,
    "SharedTransformerClassifier": SharedTransformerClassifier,
    "SiameseNet": SiameseNet,
    "TiedAutoencoder": TiedAutoencoder,
    "TiedLanguageModel": TiedLanguageModel,
    "TimeDelayNet": TimeDelayNet,
    "WeightAgnosticNet": WeightAgnosticNet,
}
