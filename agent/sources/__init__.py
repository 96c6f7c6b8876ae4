"""Where rows come from: files, lines, brokers, field buses, HTTP, the host itself."""

from agent.sources.kinds import SourceContext, SourceKind, find_source_problems, open_source
from agent.sources.tally import Tally

__all__ = ["SourceContext", "SourceKind", "Tally", "find_source_problems", "open_source"]
