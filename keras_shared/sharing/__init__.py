"""What a model shares: each weight once, who reads it, how often, and what that saves."""

from keras_shared import start as start
from keras_shared.sharing.clustering import cluster as cluster
from keras_shared.sharing.find_ties import StoredWeight as StoredWeight
from keras_shared.sharing.find_ties import Ties as Ties
from keras_shared.sharing.find_ties import find_ties as find_ties
from keras_shared.sharing.loading_weights import load_weights as load_weights
from keras_shared.sharing.picture import draw_sharing as draw_sharing
from keras_shared.sharing.report import Reading as Reading
from keras_shared.sharing.report import SharingReport as SharingReport
from keras_shared.sharing.report import Weight as Weight
from keras_shared.sharing.report import sharing_report as sharing_report
from keras_shared.sharing.report import stored_report as stored_report
from keras_shared.sharing.resizing import resize_vocabulary as resize_vocabulary
from keras_shared.sharing.soft_sharing import MixtureRegularizer as MixtureRegularizer
from keras_shared.sharing.soft_sharing import SoftSharing as SoftSharing
from keras_shared.sharing.to_convolutional import ConvolutionError as ConvolutionError
from keras_shared.sharing.to_convolutional import Window as Window
from keras_shared.sharing.to_convolutional import to_convolutional as to_convolutional
from keras_shared.sharing.to_convolutional import window_of as window_of
from keras_shared.sharing.tree import write_tree as write_tree
from keras_shared.sharing.tying_existing import tie_weights as tie_weights
from keras_shared.sharing.unsharing import unshare as unshare
