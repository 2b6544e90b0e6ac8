// The smallest guest with a C library.
#include <stdio.h>

int main(void) {
    puts("hello from C");
    return 0;
}
