//go:build tinygo && !measure

package main

import "github.com/runnel-fota/runnel/firmware/nrf51"

func random() uint32 { return nrf51.Random() }
