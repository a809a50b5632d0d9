// What was typed into a terminal and not read yet (termios(3)). It can only be read by taking it out, so it
// is taken and put back at once; a program that does not run meanwhile cannot tell.
#pragma once

#include <string>

namespace virt {

// `master` is a descriptor of ours. Whole lines and the beginning of one, in the order they were typed; with
// the terminal left as it was.
std::string peek_terminal_input(int master);

// Types it in again, unechoed and uninterpreted, under the terminal's present settings.
void put_terminal_input(int master, const std::string& bytes);

}  // namespace virt
