"""Read by mypy alone (`make lint`): every blueprint has what the training engine needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skstack._stack.joint_network import JointNetwork
    from skstack._training.blueprint import Blueprint
    from skstack.losses._teacher_networks import WithProjection, WithTeacher
    from skstack.networks._adopted import FrozenBlueprint, ModelBlueprint
    from skstack.networks._autoencoder import DecoderBlueprint
    from skstack.networks._builder import BuilderBlueprint
    from skstack.networks._heads import WithoutActivation
    from skstack.networks._recipe import RecipeBlueprint

    def all_blueprints(
        recipe: RecipeBlueprint,
        builder: BuilderBlueprint,
        model: ModelBlueprint,
        frozen: FrozenBlueprint,
        decoder: DecoderBlueprint,
        without_activation: WithoutActivation,
        with_projection: WithProjection,
        with_teacher: WithTeacher,
        joint: JointNetwork,
    ) -> list[Blueprint]:
        return [
            recipe, builder, model, frozen, decoder, without_activation, with_projection,
            with_teacher, joint,
        ]  # fmt: skip
