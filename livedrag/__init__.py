"""livedrag: real-time, collaborative, point-based image editing in the browser.

``livedrag.editor`` is the algorithm, ``livedrag.server`` the service; `pictures` and `limits` are what they share,
since neither may import the other. In the repository the two packages lie at the top level; here they are links, so
that ``livedrag.editor`` is the one import name in a checkout, an editable installation, a wheel and mypy alike. A
build backend's prefix mapping would do for wheels, but not for editable installations and mypy.
"""
