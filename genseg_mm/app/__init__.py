"""The web page: clicks, boxes, words and pictures of words in a browser. ``page`` and ``serve`` alone need Gradio."""
