//go:build !unix

package main

import "time"

var began = time.Now()

func cpuSeconds() float64 { return time.Since(began).Seconds() }

func peakRSS() int64 { return 0 }
