// A greeting, the arguments, one environment variable; then exit code 3.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    puts("hello from C");
    for (int i = 1; i < argc; i++) printf("arg %s\n", argv[i]);
    const char *colour = getenv("COLOUR");
    printf("COLOUR=%s\n", colour ? colour : "none");
    return 3;
}
