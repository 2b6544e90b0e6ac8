// A greeting, the arguments, one environment variable; then exit code 3.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("hello from Go")
	for _, arg := range os.Args[1:] {
		fmt.Println("arg", arg)
	}
	fmt.Printf("COLOUR=%s\n", os.Getenv("COLOUR"))
	os.Exit(3)
}
