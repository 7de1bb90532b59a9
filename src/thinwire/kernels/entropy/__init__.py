"""Codes whose lengths follow the data: Rice, exp-Golomb, adaptive, Elias, rANS."""
