"""Settings: arguments and dlt's configuration come in; checked, frozen `Settings` go out."""
