"""Live streams: what is stored, told to whoever has subscribed to it, over websockets.

``session`` is one connection, ``feed`` what several connections may be told of, ``hub`` the task that looks
for what is new and hands it out.
"""
