"""A source document and a mapping in, a document of the scheme and its account out.

Nothing is dropped in silence: each span and each relation that is read is mapped, or skipped under
one reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fedmedlora.corpus.account import ReadReport, Tally, total_report
from fedmedlora.corpus.mapping import Discontinuous, RelationRule, TypeMapping
from fedmedlora.corpus.overlaps import count_overlaps
from fedmedlora.corpus.source import SourceDocument, SourceRelation, SourceSpan
from fedmedlora.errors import DataError
from fedmedlora.schema import Document, Entity, Relation, Scheme

#: (role of the head, role of the tail) that is understood without a mapping.
_PLAIN_ROLES = (("head", "tail"), ("Arg1", "Arg2"))


def map_documents(
    sources: Iterable[SourceDocument],
    mapping: TypeMapping | None,
    *,
    scheme: Scheme,
    discontinuous: Discontinuous | None = None,
) -> tuple[list[Document], ReadReport]:
    """Map every document, in order, and add up the accounts.

    Args:
        sources: documents in their source's own types.
        mapping: how to read them; ``None`` keeps the types, all spans and all binary relations.
        scheme: whose pairs are valid; not asked without a mapping.
        discontinuous: overrides the mapping's rule ("cover" without a mapping).

    Raises:
        DataError: the mapping refuses unmapped types and meets one.
    """
    rule = discontinuous or (mapping.discontinuous if mapping else "cover")
    documents: list[Document] = []
    reports: list[ReadReport] = []
    for source in sources:
        work = _Work(source=source, mapping=mapping, scheme=scheme, discontinuous=rule)
        document = work.document()
        documents.append(document)
        reports.append(work.report(document))
    return documents, total_report(reports)


@dataclass
class _Work:
    """The counters of one document while it is being mapped."""

    source: SourceDocument
    mapping: TypeMapping | None
    scheme: Scheme
    discontinuous: Discontinuous
    spans: tuple[Counter[str], Counter[tuple[str, str]], Counter[tuple[str, str]]] = field(
        default_factory=lambda: (Counter(), Counter(), Counter())
    )
    relations: tuple[Counter[str], Counter[tuple[str, str]], Counter[tuple[str, str]]] = field(
        default_factory=lambda: (Counter(), Counter(), Counter())
    )
    fragments: Counter[str] = field(default_factory=Counter)
    invalid: Counter[tuple[str, str]] = field(default_factory=Counter)

    def document(self) -> Document:
        places = self._places()
        ends, kept_relations = self._ends(places)
        entities, alias = self._entities(places, ends)
        relations = self._relations(kept_relations, {e.id: e for e in entities}, alias)
        covers = self.source.covers
        if self.mapping is not None and self.mapping.covers is not None:
            covers = self.mapping.covers
        return Document(
            id=self.source.id,
            text=self.source.text,
            entities=tuple(entities),
            relations=tuple(relations),
            group=self.source.group,
            covers=covers,
        )

    def report(self, document: Document) -> ReadReport:
        return ReadReport(
            documents=1,
            spans=Tally(*self.spans),
            relations=Tally(*self.relations),
            discontinuous=self.fragments,
            overlaps=count_overlaps(document.entities),
            invalid_pairs=self.invalid,
            **self.source.extras,
        )

    def _places(self) -> dict[str, tuple[SourceSpan, int, int]]:
        """Span id -> the span and its one place, for those that are kept so far."""
        read, _, skipped = self.spans
        places: dict[str, tuple[SourceSpan, int, int]] = {}
        for span in self.source.spans:
            read[span.type] += 1
            if self.mapping is not None and span.type not in self.mapping.entities:
                self._refuse("entity", span.type)
                skipped["unmapped type", span.type] += 1
                continue
            if not span.fragments:
                skipped["its text is not at its place", span.type] += 1
                continue
            place = self._place(span)
            if place is None:
                skipped["discontinuous", span.type] += 1
            else:
                places[span.id] = (span, *place)
        return places

    def _place(self, span: SourceSpan) -> tuple[int, int] | None:
        first, last = span.fragments[0], span.fragments[-1]
        if len(span.fragments) == 1:
            return first
        gaps = (
            self.source.text[left[1] : right[0]]
            for left, right in zip(span.fragments, span.fragments[1:], strict=False)
        )
        if all(not gap.strip("\r\n") for gap in gaps):
            self.fragments["joined over line breaks"] += 1
            return first[0], max(end for _, end in span.fragments)
        match self.discontinuous:
            case "skip":
                self.fragments["skipped"] += 1
                return None
            case "cover":
                self.fragments["covering span"] += 1
                return first[0], max(end for _, end in span.fragments)
            case "first":
                self.fragments["first fragment"] += 1
                return first
            case "last":
                self.fragments["last fragment"] += 1
                return last

    def _ends(
        self, places: dict[str, tuple[SourceSpan, int, int]]
    ) -> tuple[dict[str, str], list[tuple[SourceRelation, str, str]]]:
        """(span id -> the type that a relation gives it, relations whose ends are kept so far)."""
        read, _, skipped = self.relations
        given: dict[str, str] = {}
        kept: list[tuple[SourceRelation, str, str]] = []
        types = {span.id: span.type for span in self.source.spans}
        for relation in self.source.relations:
            read[relation.type] += 1
            rule = self._rule(relation, types)
            if isinstance(rule, str):
                skipped[rule, relation.type] += 1
                continue
            head, tail = relation.arguments[rule.head], relation.arguments[rule.tail]
            if head not in places or tail not in places:
                skipped["an end was skipped", relation.type] += 1
                continue
            kept.append((relation, head, tail))
            if self.mapping is not None:
                main = self.mapping.entities[types[head]].type
                by_head = self.mapping.entities[types[tail]].by_head
                kind = rule.becomes or (by_head.get(main) if main else None)
                if kind is not None:
                    given.setdefault(tail, kind)
        return given, kept

    def _rule(self, relation: SourceRelation, types: dict[str, str]) -> RelationRule | str:
        """The rule that a relation falls under, or the reason why there is none."""
        roles = set(relation.arguments)
        if self.mapping is None:
            for head, tail in _PLAIN_ROLES:
                if roles == {head, tail}:
                    return RelationRule(type=relation.type, head=head, tail=tail)
            return "roles are neither head and tail nor Arg1 and Arg2"
        rules = [rule for rule in self.mapping.relations if rule.type == relation.type]
        if not rules:
            self._refuse("relation", relation.type)
            return "unmapped type"
        rules = [rule for rule in rules if roles == {rule.head, rule.tail}]
        if not rules:
            return "roles that no rule names"
        for rule in rules:
            head, tail = types[relation.arguments[rule.head]], types[relation.arguments[rule.tail]]
            if (rule.heads is None or head in rule.heads) and (
                rule.tails is None or tail in rule.tails
            ):
                return rule
        return "types of its ends that no rule names"

    def _entities(
        self, places: dict[str, tuple[SourceSpan, int, int]], given: dict[str, str]
    ) -> tuple[list[Entity], dict[str, str]]:
        """(the entities, id of a repeated span -> id of the one that is kept)."""
        _, mapped, skipped = self.spans
        entities: list[Entity] = []
        first: dict[tuple[str, int, int], str] = {}
        alias: dict[str, str] = {}
        for span, start, end in places.values():
            kind: str | None = span.type
            if self.mapping is not None:
                kind = given.get(span.id, self.mapping.entities[span.type].type)
            if kind is None:
                skipped["no relation says its type", span.type] += 1
                continue
            if self.mapping is not None and (kind, start, end) in first:
                skipped["same type at the same place", span.type] += 1
                alias[span.id] = first[kind, start, end]
                continue
            first[kind, start, end] = span.id
            mapped[span.type, kind] += 1
            entities.append(Entity(span.id, kind, start, end))
        return entities, alias

    def _relations(
        self,
        kept: Sequence[tuple[SourceRelation, str, str]],
        entities: dict[str, Entity],
        alias: dict[str, str],
    ) -> list[Relation]:
        _, mapped, skipped = self.relations
        relations: list[Relation] = []
        seen: set[Relation] = set()
        for source, head_id, tail_id in kept:
            head = entities.get(alias.get(head_id, head_id))
            tail = entities.get(alias.get(tail_id, tail_id))
            if head is None or tail is None:
                skipped["an end was skipped", source.type] += 1
                continue
            kind = source.type if self.mapping is None else tail.type
            relation = Relation(kind, head.id, tail.id)
            if self.mapping is not None and not self.scheme.valid(head.type, tail.type):
                skipped["invalid pair", source.type] += 1
                self.invalid[head.type, tail.type] += 1
            elif self.mapping is not None and relation in seen:
                skipped["said already", source.type] += 1
            else:
                seen.add(relation)
                mapped[source.type, kind] += 1
                relations.append(relation)
        return relations

    def _refuse(self, what: str, kind: str) -> None:
        if self.mapping is not None and self.mapping.unmapped == "refuse":
            raise DataError(
                f"document {self.source.id!r}: the mapping has no rule for the {what} type "
                f"{kind!r}; add one, or set 'unmapped: skip'"
            )
