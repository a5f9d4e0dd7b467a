"""The structs read as a schema: a tree of specs that validation, defaulting and documentation walk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from propylon.api.schema import (
    Channel,
    Constraint,
    Doc,
    ExperimentalField,
    InExperimental,
    NotDefaulted,
    Required,
)


@dataclass(frozen=True, slots=True)
class ScalarSpec:
    """A string, integer, boolean, or (for `int | str`) either; "any" for what is not described further."""

    kinds: tuple[str, ...]
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class ItemsSpec:
    """A list."""

    items: TypeSpec
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class MapSpec:
    """A mapping from strings."""

    values: TypeSpec
    constraint: Constraint


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of a struct: its JSON name, type, whether it must be given, and its default."""

    name: str
    attribute: str
    type: TypeSpec
    required: bool
    has_default: bool
    default: Any
    doc: str
    experimental: bool


@dataclass(frozen=True, slots=True, eq=False)
class StructSpec:
    """A struct: its fields by JSON name, as one channel has them."""

    struct: type
    fields: Mapping[str, FieldSpec]
    constraint: Constraint

    @property
    def doc(self) -> str:
        """What the struct is for."""
        return (self.struct.__doc__ or "").strip()


TypeSpec = ScalarSpec | ItemsSpec | MapSpec | StructSpec

_SCALARS = {str: "string", int: "integer", bool: "boolean", float: "number"}
_NONE = Constraint()


@cache
def struct_spec(struct: type, channel: Channel = "experimental") -> StructSpec:
    """The schema of a struct in a channel; fields the channel does not have are left out."""
    found: dict[str, FieldSpec] = {}
    for field in msgspec.structs.fields(struct):
        spec = _field_spec(field, channel)
        if channel == "experimental" or not spec.experimental:
            found[spec.name] = spec
    return StructSpec(struct, found, _NONE)


def _field_spec(field: msgspec.structs.FieldInfo, channel: Channel) -> FieldSpec:
    bare, extras = _unwrap(field.type)
    default = field.default if field.default is not msgspec.NODEFAULT else None
    absent = field.default is msgspec.NODEFAULT or default is None or default == ()
    not_defaulted = any(isinstance(extra, NotDefaulted) for extra in extras)
    # An optional struct whose fields are all optional ("status: {}") stands for absence, not for a default.
    empty = isinstance(default, msgspec.Struct) and not _has_content(default)
    return FieldSpec(
        name=field.encode_name,
        attribute=field.name,
        type=_type_spec(bare, extras, channel),
        required=field.required or any(isinstance(extra, Required) for extra in extras),
        has_default=not (absent or not_defaulted or empty),
        default=default,
        doc=next((extra.text for extra in extras if isinstance(extra, Doc)), ""),
        experimental=any(isinstance(extra, ExperimentalField) for extra in extras),
    )


def _has_content(value: msgspec.Struct) -> bool:
    return any(getattr(value, name) not in (None, (), {}) for name in value.__struct_fields__)


def _unwrap(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The bare type without None, and everything `Annotated` around or inside the optional."""
    extras: tuple[Any, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            extras = (*more, *extras)
        elif get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation):
            rest = [arg for arg in get_args(annotation) if arg is not NoneType]
            annotation = Union[tuple(rest)]  # noqa: UP007 - built from values
        else:
            return annotation, extras


def _type_spec(bare: Any, extras: tuple[Any, ...], channel: Channel) -> TypeSpec:
    constraint = _merge(extras, channel)
    origin, args = get_origin(bare), get_args(bare)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return replace(struct_spec(bare, channel), constraint=constraint)
    if origin is tuple:
        return ItemsSpec(_type_spec(*_unwrap(args[0]), channel), constraint)
    if origin is dict:
        return MapSpec(_type_spec(*_unwrap(args[1]), channel), constraint)
    if origin in (Union, UnionType):
        return ScalarSpec(tuple(_SCALARS[arg] for arg in args), constraint)
    return ScalarSpec((_SCALARS[bare],) if bare in _SCALARS else ("any",), constraint)


def _merge(extras: tuple[Any, ...], channel: Channel) -> Constraint:
    merged: dict[str, Any] = {}
    for extra in extras:
        if isinstance(extra, InExperimental) and channel == "experimental":
            extra = extra.constraint  # noqa: PLW2901
        if isinstance(extra, Constraint):
            for field in fields(extra):
                if (value := getattr(extra, field.name)) is not None:
                    merged[field.name] = value
    return Constraint(**merged)
