"""Learned stages: ordinary torch modules, as stages of their own or injected into another stage's constructor."""
