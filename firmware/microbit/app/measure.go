//go:build tinygo && measure

package main

import "github.com/runnel-fota/runnel/firmware/agent"

func init() { agent.Micros = clock.Micros }

// random takes no time: the chip's generator takes 2.7 ms for 32 bits, which are no
// instructions.
func random() uint32 {
	seed = seed*1664525 + 1013904223
	return seed
}

var seed uint32 = 1
