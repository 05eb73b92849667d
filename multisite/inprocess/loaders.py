"""One loader per kind of ``application =``; each takes what it needs and returns the site's app.

A loader raises `NotLoaded` with the reason and the remedy where it knows them; anything else that
the site's code raises comes out unchanged and is explained by `multisite.inprocess.loader`.
"""
