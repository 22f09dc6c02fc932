package board

import (
	"unsafe"

	"github.com/runnel-fota/runnel/core/flash"
)

const areaSize = int(unsafe.Sizeof(flash.Area{}))
