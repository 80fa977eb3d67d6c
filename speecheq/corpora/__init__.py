"""Declaring, preparing, checking, downloading, importing and synthesising corpora."""
