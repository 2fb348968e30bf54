"""Models that shared layers combine into: importing this module registers them with Keras."""

from keras_shared.zoo.lecun_1989 import LeCun1989 as LeCun1989
from keras_shared.zoo.lenet5 import LeNet5 as LeNet5
from keras_shared.zoo.siamese_net import SiameseNet as SiameseNet
from keras_shared.zoo.tied_autoencoder import TiedAutoencoder as TiedAutoencoder
from keras_shared.zoo.zoo_model import ZooModel as ZooModel
