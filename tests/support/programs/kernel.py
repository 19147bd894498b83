"""Run cells in a kernel of Jupyter, and print the text of their outputs.

Arguments: the cells. A cell is interrupted once it shows `interrupt me`, or that an interrupt
cancels it.
"""

import sys

from jupyter_client.manager import start_new_kernel


def run(manager, client, code):
    sent = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["parent_header"].get("msg_id") != sent:
            continue
        content = message["content"]
        match message["msg_type"]:
            case "status" if content["execution_state"] == "idle":
                return
            case "stream":
                sys.stdout.write(content["text"])
                if "interrupt me" in content["text"]:
                    manager.interrupt_kernel()
            case "execute_result" | "display_data":
                text = content["data"].get("text/html", content["data"]["text/plain"])
                sys.stdout.write(text + "\n")
                if "an interrupt cancels" in text:
                    manager.interrupt_kernel()
            case "error":
                sys.stdout.write("\n".join([f"error: {content['ename']}", *content["traceback"], ""]))


manager, client = start_new_kernel(kernel_name="python3")
try:
    for code in sys.argv[1:]:
        run(manager, client, code)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
