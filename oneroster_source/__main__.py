from oneroster_source.cli import main

main()
