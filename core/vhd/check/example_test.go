package check_test

import (
	"fmt"
	"log"

	"github.com/vhdmount/vhdmount/core/vhd/check"
)

func ExampleRun() {
	report, err := check.Run("disk.vhd", check.Options{Lock: true, Parents: true})
	if err != nil {
		log.Fatal(err) // not found, in use, no VHD at all
	}
	for _, finding := range report.Findings {
		fmt.Println(finding)
	}
	if report.Damaged() {
		fmt.Println("the image is damaged")
	}
}
