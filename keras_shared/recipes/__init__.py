"""Recipes: read and checked, changed, and what a comparison makes of them."""

from keras_shared.recipes.recipe import Recipe as Recipe
from keras_shared.recipes.recipe import RecipeError as RecipeError
from keras_shared.recipes.recipe import read_recipe as read_recipe
from keras_shared.recipes.recipe import recipe_from as recipe_from
