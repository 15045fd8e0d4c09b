"""Captioned clips: where they are listed, whether they are sound, which bucket they go to, a cache on disk.

Imports rcv.video and rcv.config alone; what a training sample takes of a clip is rcv.training.clips.
"""
