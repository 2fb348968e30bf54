"""Recipes: read and checked, changed, and what a comparison makes of them."""

from keras_shared.recipes.changes import changed as changed
from keras_shared.recipes.changes import comparison_of as comparison_of
from keras_shared.recipes.recipe import Recipe as Recipe
from keras_shared.recipes.recipe import RecipeError as RecipeError
from keras_shared.recipes.recipe import json_schema as json_schema
from keras_shared.recipes.recipe import read_recipe as read_recipe
from keras_shared.recipes.recipe import recipe_from as recipe_from
