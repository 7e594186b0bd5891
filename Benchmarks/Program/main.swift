import EndToEndBenchmarks
import Glibc

exit(EndToEnd.main(CommandLine.arguments))
