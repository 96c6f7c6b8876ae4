"""What one model's manager tells: executions, lost workers, trouble with slots."""

from __future__ import annotations

import logging

from agent.ports import RuntimeFacts, WorkerIncident
from agent.reporter import Reporter
from agent.slots import Candidate, ReleaseRef, Slots
from shoal.protocol.messages import ModelState

log = logging.getLogger("agent.slots")

BAD = frozenset({"failed", "rejected", "rolled_back"})
"""Ends of an execution after which the release does not run."""


class Teller:
    """Turns what happens to one model into events and log lines."""

    def __init__(self, model: str, reporter: Reporter) -> None:
        self._model = model
        self._reporter = reporter

    def execution(
        self,
        candidate: Candidate | None,
        state: str,
        code: str,
        sentence: str,
        **numbers: float,
    ) -> None:
        """How far the candidate's execution has come."""
        if candidate is None:
            return
        assignment = candidate.assignment
        log.info(
            "execution model=%s version=%s state=%s code=%s sentence=%r",
            self._model,
            assignment.version,
            state,
            code,
            sentence,
        )
        self._reporter.event(
            "execution",
            code,
            sentence,
            severity="error" if state in BAD else "info",
            model=self._model,
            version=assignment.version,
            rollout=assignment.rollout or None,
            attempt=assignment.attempt,
            data={"state": state, "intent": assignment.intent, **numbers},
        )

    def incident(self, incident: WorkerIncident) -> None:
        """A worker was lost."""
        self._reporter.event(
            "worker",
            incident.code,
            incident.sentence,
            severity="warning" if incident.recovered else "error",
            model=incident.model,
            version=incident.version,
        )

    def slot(self, code: str, sentence: str, version: str, severity: str = "error") -> None:
        """Something about what is committed, which no execution is under way for."""
        log.error("slot model=%s version=%s code=%s error=%r", self._model, version, code, sentence)
        self._reporter.event(
            "slot", code, sentence, severity=severity, model=self._model, version=version
        )


def describe(slots: Slots, answers: ReleaseRef | None, facts: RuntimeFacts | None) -> ModelState:
    """One model for the `state` message: its slots, and what answers with which runtime."""
    candidate = slots.candidate
    return ModelState(
        model=slots.model,
        active_version=answers.version if answers else None,
        active_sequence=answers.sequence if answers else None,
        active_manifest=answers.manifest_sha256 if answers else None,
        active_variant=answers.variant if answers else None,
        last_good_version=slots.last_good.version if slots.last_good else None,
        candidate_version=candidate.assignment.version if candidate else None,
        candidate_state=candidate.stage.value if candidate else None,
        runtime=facts.runtime if facts else None,
        runtime_version=facts.version if facts else None,
        kernels=facts.kernels if facts else None,
    )
