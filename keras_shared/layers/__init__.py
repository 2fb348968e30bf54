"""Layers that share: importing this module registers them with Keras' saving."""

from keras_shared import start as start
from keras_shared.layers.center_ink import CenterInk as CenterInk
from keras_shared.layers.clustered import ClusteredConv1D as ClusteredConv1D
from keras_shared.layers.clustered import ClusteredConv2D as ClusteredConv2D
from keras_shared.layers.clustered import ClusteredConv3D as ClusteredConv3D
from keras_shared.layers.clustered import ClusteredDense as ClusteredDense
from keras_shared.layers.connection_table_conv2d import (
    ConnectionTableConv2D as ConnectionTableConv2D,
)
from keras_shared.layers.conv2d import Conv2D as Conv2D
from keras_shared.layers.euclidean_rbf import EuclideanRBF as EuclideanRBF
from keras_shared.layers.gaussian_rbf import GaussianRBF as GaussianRBF
from keras_shared.layers.hashed_dense import HashedDense as HashedDense
from keras_shared.layers.locally_connected_2d import LocallyConnected2D as LocallyConnected2D
from keras_shared.layers.over_fields import OverFields as OverFields
from keras_shared.layers.position_bias import PositionBias as PositionBias
from keras_shared.layers.position_embedding import PositionEmbedding as PositionEmbedding
from keras_shared.layers.relaxed_dense import RelaxedDense as RelaxedDense
from keras_shared.layers.scale import Scale as Scale
from keras_shared.layers.scaled_tanh import scaled_tanh as scaled_tanh
from keras_shared.layers.shared import Shared as Shared
from keras_shared.layers.shared_stack import SharedStack as SharedStack
from keras_shared.layers.step_embedding import StepEmbedding as StepEmbedding
from keras_shared.layers.tied_conv import TiedConv as TiedConv
from keras_shared.layers.tied_conv_transpose import TiedConv2DTranspose as TiedConv2DTranspose
from keras_shared.layers.tied_conv_transpose import TiedConvTranspose as TiedConvTranspose
from keras_shared.layers.tied_dense import TiedDense as TiedDense
from keras_shared.layers.tied_einsum_dense import TiedEinsumDense as TiedEinsumDense
from keras_shared.layers.tied_layer import TiedLayer as TiedLayer
from keras_shared.layers.trainable_subsampling import TrainableSubsampling as TrainableSubsampling
from keras_shared.layers.transformer_block import TransformerBlock as TransformerBlock
