"""The whole job at once: from a folder of photos and a limit to a checked package (`edgenas auto`).

Every step is an existing command, run by the same library call in a folder of its own, so that each can be looked at,
repeated and gone on with by itself. What is decided here is only what to ask of them, and how long each may take.
"""
