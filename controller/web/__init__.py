"""The dashboard: pages rendered here, enlivened by htmx and uPlot, readable without either."""
