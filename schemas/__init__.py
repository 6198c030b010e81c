"""Contracts: what messages look like, what they are called, and the errors about them.

    inference, label      what driftline reads
    pane                  summaries on the way from ingest to detect
    verdict, alert        what driftline tells
    deadletter            messages it could not use
    cloudevents           the headers verdicts and alerts travel with
    contracts, asyncapi   the same, published for readers in any language (`generate` writes it)

Modules are imported by name (`from driftline.schemas.verdict import Verdict`); this package
exports nothing itself, so that reading one contract does not load the others.
"""
