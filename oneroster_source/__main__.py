from oneroster_source.cli.app import main

main()
