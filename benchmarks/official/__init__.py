"""The official APIs call for call, over converted tables: same names, same answers, same random draws."""
