"""The web page that the proxy serves."""
