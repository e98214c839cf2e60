#include "textflag.h"

// func with(frame uintptr): calls allocate with a frame pointer that is none. The assembler restores ours.
TEXT ·with(SB), 0, $16-8
	MOVQ frame+0(FP), AX
	MOVQ AX, BP
	CALL ·allocate(SB)
	RET
