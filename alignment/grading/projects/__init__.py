"""Grade functions by the tests of repositories in compiled languages, through one interface for all of them."""
