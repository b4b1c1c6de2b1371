"""A run folder in, one HTML file out that needs neither network nor server.

- ``records``: what the files of a run folder hold, checked
- ``run``: a run folder as a ``Run``
- ``methods``: which kind a method is of, and how kinds are called
- ``blocks``: what sections are made of: paragraphs, tables, figures
- ``charts``: numbers as inline SVG
- ``summary``, ``scores``, ``joining``, ``training``, ``costs``, ``sites``,
  ``variants``, ``making``: the sections
- ``browser``: notes, predictions and errors, if the study lets their text out
- ``page``: everything as one file
"""
