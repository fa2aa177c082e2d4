"""HMR 2.0 (Goel et al., ICCV 2023)."""
