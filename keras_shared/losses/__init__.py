"""Losses of the zoo: importing this module registers them with Keras' saving."""

from keras_shared.losses.contrastive_loss import ContrastiveLoss as ContrastiveLoss
from keras_shared.losses.rbf_loss import RBFLoss as RBFLoss
