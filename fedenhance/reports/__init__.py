"""What finished runs say: metrics, tables, figures, findings, pages."""
