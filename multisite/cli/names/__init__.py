"""Modules that users have in their files under these names: each is found as `multisite.NAME`, too."""
