import EngineCLI
import Glibc

exit(EngineCLI.main(Array(CommandLine.arguments.dropFirst())))
