/* The least that a native container can run: nothing, or nothing for ever. Linked statically. */
#include <unistd.h>

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1)
        pause();
    return 0;
}
