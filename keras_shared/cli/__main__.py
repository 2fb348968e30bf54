import sys

from keras_shared.cli.command_line import main

sys.exit(main())
