"""What a model is for. A new task is a file here and a line in `TASKS`."""

from keras_shared import start as start
from keras_shared.tasks.classification import CLASSIFICATION
from keras_shared.tasks.language_modeling import LANGUAGE_MODELING
from keras_shared.tasks.multitask_classification import MULTITASK_CLASSIFICATION
from keras_shared.tasks.reconstruction import RECONSTRUCTION
from keras_shared.tasks.sentence_classification import SENTENCE_CLASSIFICATION
from keras_shared.tasks.task import Metric as Metric
from keras_shared.tasks.task import Monitor as Monitor
from keras_shared.tasks.task import Shown as Shown
from keras_shared.tasks.task import Task as Task
from keras_shared.tasks.task import Tested as Tested
from keras_shared.tasks.verification import VERIFICATION

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        CLASSIFICATION,
        VERIFICATION,
        RECONSTRUCTION,
        LANGUAGE_MODELING,
        SENTENCE_CLASSIFICATION,
        MULTITASK_CLASSIFICATION,
    )
}
